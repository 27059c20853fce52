export type Theme = 'system' | 'light' | 'dark';

class ThemeChoice {
  value = $state<Theme>('system');

  constructor() {
    const chosen = typeof document === 'undefined' ? undefined : document.documentElement.dataset.theme;
    if (chosen === 'light' || chosen === 'dark') this.value = chosen;
  }

  choose(theme: Theme): void {
    this.value = theme;
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem('theme', theme);
    } catch {
      // Not remembered, then.
    }
  }
}

export const theme = new ThemeChoice();
