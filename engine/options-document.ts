/** docs/options.md, from the tables that read the options. */

import { optionRows } from '#options/table.ts';
import { CHAT_OPTIONS } from './chat/chat-options.ts';
import { SERVE_OPTIONS } from './options.ts';

export function optionsMarkdown(): string {
  return `# Options

Generated from \`engine/options.ts\` and \`engine/chat/chat-options.ts\` by \`node scripts/documents.ts\`. Flags win over the environment.

## \`npm run serve\`, \`npm run demo\`

${optionRows(SERVE_OPTIONS)}
## \`npm run chat\`

Without \`--url\` it also takes the options above, for the engine it starts; all but those of who may connect
(\`--host\`, \`--port\`, \`--api-key\`, \`--api-keys-file\`, \`--cors-origin\`).

${optionRows(CHAT_OPTIONS)}`;
}
