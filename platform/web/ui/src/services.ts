// The one API client and the one live connection of the page.

import { Api } from "./api/api";
import { LiveClient, liveUrl } from "./live/live";

export const api = new Api(document.baseURI);
export const live = new LiveClient(liveUrl(document.baseURI));
