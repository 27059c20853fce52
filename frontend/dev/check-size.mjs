// Holds the bundle to its budget (UX guide 7), gzip -9: the first page's scripts and styles, and everything together.
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const KIB = 1024;
const BUDGET = { js: 110 * KIB, css: 20 * KIB, all: 600 * KIB };
const dist = new URL('../dist/', import.meta.url).pathname;
const size = (file) => gzipSync(readFileSync(join(dist, file)), { level: 9 }).length;

const manifest = JSON.parse(readFileSync(join(dist, '.vite/manifest.json'), 'utf8'));
const first = { js: 0, css: 0 };
const seen = new Set();
function add(name) {
  if (seen.has(name)) return;
  seen.add(name);
  const chunk = manifest[name];
  first.js += size(chunk.file);
  for (const css of chunk.css ?? []) first.css += size(css);
  for (const other of chunk.imports ?? []) add(other);
}
add('index.html');

let all = 0;
for (const file of readdirSync(dist, { recursive: true })) {
  if (!file.startsWith('.vite') && statSync(join(dist, file)).isFile()) all += size(file);
}

const kib = (bytes) => `${(bytes / KIB).toFixed(1)} KiB`;
console.log(`first page: ${kib(first.js)} scripts, ${kib(first.css)} styles; everything: ${kib(all)} (gzip)`);
const over = [
  first.js > BUDGET.js && 'scripts of the first page',
  first.css > BUDGET.css && 'styles of the first page',
  all > BUDGET.all && 'everything together',
].filter(Boolean);
if (over.length > 0) {
  console.error(`over budget: ${over.join(', ')}`);
  process.exitCode = 1;
}
