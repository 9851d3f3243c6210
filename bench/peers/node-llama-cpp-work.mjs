/** One work of the model bench on node-llama-cpp; prints tokens/s. Sequences run in one context, which batches them. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { directory, gguf, threads, generate, prompts } = JSON.parse(process.argv[2]);
const { getLlama } = await import(
  pathToFileURL(join(directory, 'node_modules/node-llama-cpp/dist/index.js')).href
);
const llama = await getLlama({ build: 'never', gpu: false, logLevel: 'error' });
const model = await llama.loadModel({ modelPath: gguf });
const sequences = prompts.length;
const length = prompts[0].length;

/** tokens/s: of the prompt, or of the tokens after each sequence's first. */
async function speed(newTokens) {
  const context = await model.createContext({
    sequences,
    contextSize: length + newTokens + 8,
    batchSize: 512,
    threads,
    flashAttention: true,
  });
  const startedAt = performance.now();
  let lastFirstAt = 0;
  let later = 0;
  await Promise.all(
    prompts.map(async (tokens) => {
      let count = 0;
      for await (const _ of context
        .getSequence()
        .evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
        if (count++ === 0) lastFirstAt = performance.now();
        else later++;
        if (count > newTokens) break;
      }
    }),
  );
  const endedAt = performance.now();
  await context.dispose();
  return generate === 0
    ? (length * sequences * 1000) / (lastFirstAt - startedAt)
    : (later * 1000) / (endedAt - lastFirstAt);
}

// The first context maps the file and warms the threads.
await speed(1);
console.log(await speed(Math.max(1, generate)));
process.exit(0);
