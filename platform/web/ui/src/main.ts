// The dashboard. Open app-shell.ts first: it is the page. live.ts and frame.ts bring the rows,
// spectrum-feed.ts and trend-feed.ts keep them, the *-panel.ts files show them.

import "./theme.css";
import "./app-shell";
