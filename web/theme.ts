/** Light or dark: the system's choice until the reader picks one; picking the system's own again forgets the pick. */

const KEY = 'nvlm.theme';
const systemIsDark = matchMedia('(prefers-color-scheme: dark)');

function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen === undefined ? systemIsDark.matches : chosen === 'dark';
}

/** Makes the button switch themes and name what it will switch to. */
export function bindThemeToggle(button: HTMLButtonElement): void {
  const label = (): void => {
    const next = isDark() ? 'Switch to light theme' : 'Switch to dark theme';
    button.setAttribute('aria-label', next);
    button.title = next;
    button.classList.toggle('is-dark', isDark());
  };
  button.addEventListener('click', () => {
    const next = isDark() ? 'light' : 'dark';
    if ((next === 'dark') === systemIsDark.matches) {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem(KEY);
    } else {
      document.documentElement.dataset.theme = next;
      localStorage.setItem(KEY, next);
    }
    label();
  });
  systemIsDark.addEventListener('change', label);
  label();
}
