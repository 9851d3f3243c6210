/** docs/resource.md, from the schema and the condition tables of the custom resource. */
import {
  CONDITION_MEANINGS,
  CONDITION_TYPES,
  PHASE_MEANINGS,
  PHASES,
  REASONS,
  REMEDIES,
  type Reason,
} from '#crds/conditions.ts';
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

function conditionRow(type: (typeof CONDITION_TYPES)[number]): string {
  const { holds, healthy, reasons } = CONDITION_MEANINGS[type];
  const list = reasons.map((reason) => `\`${reason}\``).join(', ');
  return `| \`${type}\` | ${holds} | ${healthy === undefined ? 'either' : `\`${healthy}\``} | ${list} |`;
}

export const resourceMarkdown = (): string => `# NVLMDeployment

Generated from \`crds/\` by \`node scripts/documents.ts\`. \`kubectl explain nvlm.spec\` shows the same in a cluster.

## spec

${(specSchema['x-kubernetes-validations'] ?? []).map(({ message }) => `- ${message}`).join('\n')}

${table(specSchema)}
## status

${table(statusSchema)}
## Conditions

The columns PHASE and REASON of \`kubectl get nvlm\` say the state in two words; the conditions say it by aspects, each with a reason and a message (\`kubectl describe nvlm NAME\`, \`kubectl nvlm status NAME\`).

| condition | \`True\` means | while all is well | reasons |
|---|---|---|---|
${CONDITION_TYPES.map(conditionRow).join('\n')}

| phase | what it tells |
|---|---|
${PHASES.map((phase) => `| \`${phase}\` | ${PHASE_MEANINGS[phase]} |`).join('\n')}

| reason | what it tells | what to do |
|---|---|---|
${(Object.entries(REASONS) as [Reason, string][]).map(([reason, meaning]) => `| \`${reason}\` | ${meaning} | ${REMEDIES[reason] ?? ''} |`).join('\n')}
`;
