/** Codes of the languages that Whisper knows, in its own order. */
export const LANGUAGES: readonly string[] = (
  'en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv ' +
  'bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa ' +
  'lb my bo tl mg as tt haw ln ha ba jw su yue'
).split(' ');

/** The browser's name of a language; Whisper writes Javanese in its own way. */
export function languageName(code: string): string {
  try {
    return new Intl.DisplayNames(undefined, { type: 'language' }).of(code === 'jw' ? 'jv' : code) ?? code;
  } catch {
    return code;
  }
}

/** Code and name, sorted by name. */
export function languages(): { code: string; name: string }[] {
  return LANGUAGES.map((code) => ({ code, name: languageName(code) })).sort((a, b) => a.name.localeCompare(b.name));
}
