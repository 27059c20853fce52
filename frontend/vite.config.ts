import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

/** The policy of the page. The server sends the same as a header; this one also holds in a saved or proxied copy. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  // Sound that was made here is played from memory.
  "media-src 'self' blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

/** Adds the policy to the built page only: the development server needs inline scripts and styles. */
function contentSecurityPolicy() {
  return {
    name: 'content-security-policy',
    apply: 'build' as const,
    transformIndexHtml: () => [
      { tag: 'meta', attrs: { 'http-equiv': 'Content-Security-Policy', content: POLICY }, injectTo: 'head-prepend' as const },
    ],
  };
}

export default defineConfig({
  base: '/ui/',
  plugins: [svelte(), contentSecurityPolicy()],
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false }, manifest: true },
  server: { proxy: { '/v1': 'http://127.0.0.1:5801' } },
  test: { include: ['tests/**/*.test.ts'], environment: 'node' },
});
