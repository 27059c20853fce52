import { describe, expect, it } from 'vitest';
import * as f from '../src/text/format';

const tables: [string, (n: number) => string, [number, string][]][] = [
  ['formatMemory', f.formatMemory, [[0, '0 kB'], [512 * 1024, '512 kB'], [26 * 1024 ** 2, '26 MB'], [1024 ** 3, '1.0 GB'], [6.55e9, '6.1 GB'], [128 * 1024 ** 3, '128 GB']]],
  ['formatFile', f.formatFile, [[1.8e6, '1.8 MB'], [4.98e9, '5.0 GB'], [999.9e6, '1.0 GB'], [42.5e9, '42.5 GB']]],
  ['formatParameters', f.formatParameters, [[0, ''], [890_000, '0.9M'], [8.2e9, '8.2B'], [70e9, '70.0B'], [671e9, '671B']]],
  ['formatTokens', f.formatTokens, [[4096, '4k'], [512, '512'], [40960, '40k'], [5000, '5,000']]],
  ['formatSeconds', f.formatSeconds, [[210, '0.2 s'], [14_200, '14 s']]],
  ['formatCountdown', f.formatCountdown, [[-5, '0:00'], [252_000, '4:12'], [3_750_000, '1:02:30']]],
  ['formatPercent', f.formatPercent, [[0.623, '62%'], [1.2, '100%']]],
];

describe.each(tables)('%s', (_name, format, rows) => {
  it.each(rows)('%d → %s', (value, text) => expect(format(value)).toBe(text));
});
