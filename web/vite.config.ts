/// <reference types="vitest/config" />
import { defineConfig } from 'vite'

// Everything is named relative to the page, as that is served at / and at /host/NAME/ alike, and below a proxy's path too.
export default defineConfig({
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  // `npm run dev` beside a running agent.
  server: {
    proxy: {
      '^/(host/[^/]+/)?(api/|netdata\\.conf)': process.env.AGENT ?? 'http://localhost:19999',
    },
  },
  test: { include: ['tests/unit/**/*.test.ts'] },
})
