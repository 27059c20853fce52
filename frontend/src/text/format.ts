/** Every number the window shows goes through here: one unit rule, the browser's own locale. */

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

function number(value: number, digits: number): string {
  return new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

function scaled(bytes: number, giga: number, mega: number): string {
  if (bytes >= giga * 0.9995) return `${number(bytes / giga, bytes >= giga * 99.95 ? 0 : 1)} GB`;
  if (bytes >= mega * 0.95) return `${number(bytes / mega, bytes >= mega * 9.95 ? 0 : 1)} MB`;
  return `${number(bytes / (mega / (giga / mega)), 0)} kB`;
}

/** Memory: binary, written GB as operating systems and GPU vendors do. */
export const formatMemory = (bytes: number): string => scaled(bytes, GIB, MIB);

/** Files and downloads: decimal. */
export const formatFile = (bytes: number): string => scaled(bytes, 1e9, 1e6);

export const formatCount = (value: number): string => number(value, 0);

/** `0.9M`, `8.2B`: parameters as model cards write them. */
export function formatParameters(count: number): string {
  if (count <= 0) return '';
  if (count >= 1e9) return `${number(count / 1e9, count >= 99.5e9 ? 0 : 1)}B`;
  if (count >= 1e5) return `${number(count / 1e6, count >= 99.5e6 ? 0 : 1)}M`;
  return formatCount(count);
}

/** `4k`, `16k`, `512`: context lengths. */
export function formatTokens(count: number): string {
  return count >= 1024 && count % 1024 === 0 ? `${formatCount(count / 1024)}k` : formatCount(count);
}

/** `0.2 s`, `14 s`. */
export function formatSeconds(ms: number): string {
  const s = ms / 1000;
  return `${number(s, s < 9.95 ? 1 : 0)} s`;
}

/** A countdown: `4:12`, `1:02:30`. Never negative. */
export function formatCountdown(ms: number): string {
  const s = Math.max(0, Math.ceil(ms / 1000));
  const two = (n: number) => String(n).padStart(2, '0');
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

export const formatPercent = (fraction: number): string =>
  new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 0 }).format(Math.min(1, Math.max(0, fraction)));

export const formatRate = (perSecond: number): string => number(perSecond, perSecond < 9.95 ? 1 : 0);

export const formatTime = (ms: number): string => new Date(ms).toLocaleTimeString();
