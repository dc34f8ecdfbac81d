"""A small wind park that exists only as arithmetic, and sends like a real one: through the forward port.

Open `park` first: it says which sensors there are. `rotation` is how a turbine turns and what the wind does,
`vibration` what its sensors feel, `bearing` how a bearing fails; all are functions of the time alone, so that
the same second always sounds the same. `tier` sends it in real time; `policies.toml` is what takes it in.
"""
