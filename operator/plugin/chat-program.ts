/** The terminal chat that `kubectl nvlm chat` starts: of the checkout, or in the one file of scripts/plugin.mjs that file again. */
import { join } from 'node:path';

export const chatProgram: { readonly file: string; readonly environment: NodeJS.ProcessEnv } = {
  file: join(import.meta.dirname, '../../engine/chat/main.ts'),
  environment: {},
};
