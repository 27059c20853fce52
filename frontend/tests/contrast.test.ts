import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

/** The three token blocks of app.css: light, dark by system, dark by choice. */
const css = readFileSync(new URL('../src/app.css', import.meta.url), 'utf8');
const blocks = [...css.matchAll(/color-scheme: (light|dark);([^}]*)\}/g)].map((match) => ({
  scheme: match[1],
  tokens: Object.fromEntries([...(match[2] ?? '').matchAll(/--([a-z-]+):\s*(#[0-9a-f]{6})/g)].map((t) => [t[1], t[2]])) as Record<string, string>,
}));

/** WCAG 2 contrast ratio. */
function contrast(a: string, b: string): number {
  const luminance = (hex: string) => {
    const [r, g, bl] = [1, 3, 5].map((at) => {
      const c = parseInt(hex.slice(at, at + 2), 16) / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    }) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl;
  };
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

describe('tokens', () => {
  it('exist for light, and the same dark ones twice', () => {
    expect(blocks.map((block) => block.scheme)).toEqual(['light', 'dark', 'dark']);
    expect(blocks[1]?.tokens).toEqual(blocks[2]?.tokens);
    expect(Object.keys(blocks[0]?.tokens ?? {})).toEqual(Object.keys(blocks[1]?.tokens ?? {}));
  });

  const pairs: [string, string, number][] = [];
  for (const ground of ['bg', 'surface', 'raised']) {
    for (const text of ['text', 'muted', 'accent', 'ok', 'warn', 'err', 'info', 'load']) pairs.push([text, ground, 4.5]);
    pairs.push(['control', ground, 3]);
  }
  for (const tone of ['ok', 'warn', 'err', 'info', 'load']) pairs.push([tone, `${tone}-soft`, 4.5]);
  pairs.push(['on-accent', 'accent', 4.5]);

  it.each(pairs)('%s on %s', (front, back, least) => {
    for (const { scheme, tokens } of blocks) {
      expect(contrast(tokens[front] ?? '', tokens[back] ?? ''), scheme).toBeGreaterThanOrEqual(least);
    }
  });
});
