import { defineConfig } from "vitest/config";

export default defineConfig({
  // Relative addresses: the UI works below any path that a reverse proxy gives it.
  base: "./",
  build: {
    target: "es2022",
    // The server's content security policy allows files of its own origin only, so nothing becomes a data: address.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    proxy: { "/api": { target: "http://127.0.0.1:8080", ws: true } },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
