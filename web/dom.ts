/** Building elements without markup strings. */

type Child = Node | string | null;

/** An element with attributes (null leaves one out) and children (null leaves one out). */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | null>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) created.setAttribute(name, value);
  }
  created.append(...children.filter((child) => child !== null));
  return created;
}

const SVG = 'http://www.w3.org/2000/svg';

export function svgElement<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string>> = {},
): SVGElementTagNameMap[K] {
  const created = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  return created;
}

/** A symbol of the sprite in index.html, hidden from screen readers. */
export function icon(name: string): SVGSVGElement {
  const drawing = svgElement('svg', { class: 'icon', 'aria-hidden': 'true' });
  drawing.append(svgElement('use', { href: `#icon-${name}` }));
  return drawing;
}

/** A button with an icon and a label; the label is shown or, with `iconOnly`, only spoken. */
export function button(
  label: string,
  iconName: string,
  onClick: () => void,
  options: { iconOnly?: boolean; class?: string } = {},
): HTMLButtonElement {
  const iconOnly = options.iconOnly ?? true;
  const created = element(
    'button',
    {
      type: 'button',
      class: options.class ?? 'button-quiet',
      'aria-label': iconOnly ? label : null,
      title: iconOnly ? label : null,
    },
    icon(iconName),
    iconOnly ? null : label,
  );
  created.addEventListener('click', onClick);
  return created;
}

/** An element of index.html that must be there. */
export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return found;
}
