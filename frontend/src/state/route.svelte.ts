export type Page = 'home' | 'models' | 'chat' | 'speech';

export const PAGES: readonly Page[] = ['home', 'models', 'chat', 'speech'];

export interface Route {
  page: Page;
  /** The model the page is about: the selected one in Models, the one to talk to in Chat, to listen or speak in Speech. */
  model: string | null;
}

/** Reads `#/models/<key>`; anything unknown is Home. */
export function parseRoute(hash: string): Route {
  const [page, ...rest] = hash.replace(/^#\/?/, '').split('/');
  const model = rest.join('/');
  const known = PAGES.find((p) => p === page);
  let decoded: string | null = null;
  try {
    decoded = model ? decodeURIComponent(model) : null;
  } catch {
    decoded = null;
  }
  return { page: known ?? 'home', model: decoded };
}

export const routeTo = (page: Page, model?: string): string =>
  model === undefined ? `#/${page}` : `#/${page}/${encodeURIComponent(model)}`;

class Location {
  route = $state.raw<Route>({ page: 'home', model: null });

  constructor() {
    if (typeof window === 'undefined') return;
    const read = () => (this.route = parseRoute(window.location.hash));
    window.addEventListener('hashchange', read);
    read();
  }

  go(page: Page, model?: string): void {
    window.location.hash = routeTo(page, model);
  }
}

export const place = new Location();
