/** docs/operator-options.md, from the table that the operator reads its flags by. */

import { OPERATOR_OPTIONS } from '#operator/options.ts';
import { optionRows } from '#options/table.ts';

export const operatorOptionsMarkdown = (): string => `# Options of the operator

Generated from \`operator/options.ts\` by \`node scripts/documents.ts\`. Flags win over the environment.

${optionRows(OPERATOR_OPTIONS)}`;
