"""The web tier: the HTTP API, the live feed and the browser's files, over one store and one catalog.

Open `app.py` first: it lists every route and the module that answers it. `openapi.py` describes the same
routes for the outside. Pure logic without sockets: `ranges.py` (the Range header), `auth.py` (who may ask),
`pages.py` (lists in pages), the row arithmetic in `arrays.py`. `live.py` is the WebSocket, `tiers.py` the way
to the other tiers' Unix sockets, `tier.py` starts it all.
"""
