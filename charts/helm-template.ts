/**
 * Go templates from objects. Where a chart is to read a value, an object holds a hole: a word that survives YAML unquoted
 * and is replaced by a template expression once the YAML is written. So a chart is made by the functions that make everything else.
 */
type Render = (place: {
  /** Spaces before the line. */
  readonly indent: string;
  /** Of a mapping; undefined in a list. */
  readonly key: string | undefined;
}) => string;

interface Hole {
  /** Within a line, in the middle of text or as a whole scalar. */
  readonly inline?: { readonly expression: string; readonly isText: boolean };
  /** Instead of a line. */
  readonly line?: Render;
}

const word = (index: number): string => `TEMPLATEHOLE${index}E`;
const pattern = /TEMPLATEHOLE(\d+)E/g;

/** Hands out holes for the objects of one chart, and fills them. */
export class HelmTemplate {
  readonly #holes: Hole[] = [];

  #add(hole: Hole): string {
    this.#holes.push(hole);
    return word(this.#holes.length - 1);
  }

  /** A string, also as a part of one. */
  text(expression: string): string {
    return this.#add({ inline: { expression, isText: true } });
  }

  /** A number or a boolean. The type is what the object wants; what it gets is the hole. */
  number(expression: string): number {
    return this.#add({ inline: { expression, isText: false } }) as unknown as number;
  }

  /** An object or a list as the value of a key; an empty one leaves the key out. */
  block<T extends object>(expression: string): T {
    return this.#add({
      line: ({ indent, key }) => {
        if (key === undefined) throw new Error(`${expression} must be the value of a key`);
        return [
          `${indent}{{- with ${expression} }}`,
          `${indent}${key}:`,
          `${indent}  {{- toYaml . | nindent ${indent.length + 2} }}`,
          `${indent}{{- end }}`,
        ].join('\n');
      },
    }) as unknown as T;
  }

  /** More items of a list that has others. */
  items(expression: string): readonly string[] {
    return [this.#add({ line: ({ indent }) => more(expression, indent) })];
  }

  /** More entries of a mapping that has others. */
  entries(expression: string): Readonly<Record<string, string>> {
    const hole = this.#add({ line: ({ indent }) => more(expression, indent) });
    return { [hole]: hole };
  }

  /** Fills the holes of a YAML text; what it holds that looks like a template already stays as it is written. */
  fill(yaml: string): string {
    return yaml.replaceAll('{{', '{{ "{{" }}').split('\n').map(this.#fillLine).join('\n');
  }

  readonly #fillLine = (line: string): string => {
    const whole = /^( *)(?:- |(\S+): )TEMPLATEHOLE(\d+)E$/.exec(line);
    const render = whole && this.#holes[Number(whole[3])]?.line;
    if (whole && render) return render({ indent: whole[1] ?? '', key: whole[2] });
    return line.replace(pattern, (found, index: string, offset: number) => {
      const inline = this.#holes[Number(index)]?.inline;
      if (!inline) throw new Error(`a template for a whole line stands within one: ${line}`);
      const { expression, isText } = inline;
      const isScalar =
        offset + found.length === line.length && /^ *(- )*(\S+: )?$/.test(line.slice(0, offset));
      return isText && isScalar ? `{{ ${expression} | quote }}` : `{{ ${expression} }}`;
    });
  };
}

const more = (expression: string, indent: string): string =>
  [
    `${indent}{{- with ${expression} }}`,
    `${indent}{{- toYaml . | nindent ${indent.length} }}`,
    `${indent}{{- end }}`,
  ].join('\n');

/** Text that is there only when a condition of the values holds. */
export const guarded = (condition: string, text: string): string =>
  `{{- if ${condition} }}\n${text.trimEnd()}\n{{- end }}\n`;
