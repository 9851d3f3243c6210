/** docs/resource.md, from the schema and the condition tables of the custom resource. */
import { CONDITION_TYPES, PHASES, REASONS, REMEDIES, type Reason } from '#crds/conditions.ts';
import { specSchema } from '#crds/nvlm-deployment.schema.ts';
import { statusSchema } from '#crds/nvlm-deployment.status.ts';
import type { Schema } from '#crds/schema.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

function typeOf(schema: Schema): string {
  if (schema['x-kubernetes-int-or-string'] === true) return 'number or text';
  if (schema.enum !== undefined) return schema.enum.join(', ');
  if (schema.type === 'array') return `list of ${typeOf(schema.items ?? {})}`;
  if (schema.additionalProperties !== undefined) return 'map';
  return schema.type ?? 'any';
}

function limitsOf({
  minimum,
  maximum,
  minLength,
  maxLength,
  maxItems,
  maxProperties,
  pattern,
}: Schema): string {
  const range = (low: number | undefined, high: number | undefined, unit: string): string[] =>
    low === undefined && high === undefined
      ? []
      : [
          `${low === undefined ? 'at most ' : `${low}${high === undefined ? ' or more' : ' to '}`}${high ?? ''}${unit}`,
        ];
  return [
    ...range(minimum, maximum, ''),
    ...range(minLength, maxLength, ' characters'),
    ...range(undefined, maxItems, ' items'),
    ...range(undefined, maxProperties, ' entries'),
    // A pattern that reads as a link in Markdown is told by the description.
    ...(pattern === undefined || pattern.includes('](') ? [] : [`\`${pattern}\``]),
  ].join('; ');
}

function rows(schema: Schema, path: string): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, child]) => {
    const here = path === '' ? name : `${path}.${name}`;
    const isRequired = schema.required?.includes(name) === true;
    const fallback = isRequired
      ? 'required'
      : child.default === undefined
        ? ''
        : `\`${JSON.stringify(child.default)}\``;
    const rules = (child['x-kubernetes-validations'] ?? []).map(({ message }) => `*${message}*`);
    const description = [child.description ?? '', rules.join('; ')].join(' ').trim();
    const isDeep = child.properties !== undefined;
    const row = `| \`${here}\` | ${cell(typeOf(child))} | ${isDeep && !isRequired ? '' : cell(fallback)} | ${cell(limitsOf(child))} | ${cell(description)} |`;
    return [row, ...rows(child, here), ...rows(child.items ?? {}, `${here}[]`)];
  });
}

const table = (schema: Schema): string =>
  `| field | type | default | limits | meaning |\n|---|---|---|---|---|\n${rows(schema, '').join('\n')}\n`;

export const resourceMarkdown = (): string => `# NVLMDeployment

Generated from \`crds/\` by \`node scripts/documents.ts\`. \`kubectl explain nvlm.spec\` shows the same in a cluster.

## spec

${(specSchema['x-kubernetes-validations'] ?? []).map(({ message }) => `- ${message}`).join('\n')}

${table(specSchema)}
## status

${table(statusSchema)}
## Conditions

\`Ready\` sums the others up. Types: ${CONDITION_TYPES.map((type) => `\`${type}\``).join(', ')}. Phases: ${PHASES.map((phase) => `\`${phase}\``).join(', ')}.

| reason | what it tells | what to do |
|---|---|---|
${(Object.entries(REASONS) as [Reason, string][]).map(([reason, meaning]) => `| \`${reason}\` | ${meaning} | ${REMEDIES[reason] ?? ''} |`).join('\n')}
`;
