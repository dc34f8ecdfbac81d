// The dashboard: open app/app-shell.ts first, it is the page. The rooms:
//
//   app           the page and what it shows while there is no data, no access or no such page
//   api           the HTTP API, and how it is polled
//   live          the live feed: from WebSocket frames to rows that can be drawn
//   charts        what draws rows, and the panels around it
//   streams, alarms, policies, dead-letters, status
//                 the pages, each with its logic in plain functions
//   commands      commands and configuration to copy
//   display       theme, styles, formats
//
// router.ts and services.ts belong to all of them.

import "./display/theme.css";
import "./app/app-shell";
