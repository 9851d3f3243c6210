/** Two tabs, chosen by click or arrow keys, kept in the address so that a reload stays on the same one. */

import { byId } from './dom.ts';

const NAMES = ['chat', 'dashboard'] as const;
export type TabName = (typeof NAMES)[number];

export function bindTabs(onShow: (name: TabName) => void): void {
  const tabs = NAMES.map((name) => byId(`tab-${name}`, HTMLButtonElement));
  const show = (name: TabName, withFocus: boolean): void => {
    for (const [i, other] of NAMES.entries()) {
      const isChosen = other === name;
      tabs[i]?.setAttribute('aria-selected', String(isChosen));
      if (tabs[i] !== undefined) tabs[i].tabIndex = isChosen ? 0 : -1;
      byId(`panel-${other}`, HTMLElement).hidden = !isChosen;
      if (isChosen && withFocus) tabs[i]?.focus();
    }
    history.replaceState(null, '', name === 'chat' ? location.pathname : `#${name}`);
    document.body.dataset.view = name;
    onShow(name);
  };
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener('click', () => show(NAMES[i] ?? 'chat', false));
    tab.addEventListener('keydown', (event) => {
      if (event.key === 'ArrowLeft' || event.key === 'ArrowRight')
        show(NAMES[1 - i] ?? 'chat', true);
    });
  }
  show(location.hash === '#dashboard' ? 'dashboard' : 'chat', false);
}
