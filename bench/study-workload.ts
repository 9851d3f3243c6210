/** The study's questions as requests of a model, and what the study measured. */
import { readFileSync } from 'node:fs';
import type { GenerationRequest } from '#engine/scheduler/request.ts';
import type { LoadedModel } from '#engine/start.ts';
import { benchRequest } from './generate.ts';

/** The pictures of the image questions, in their order: files of workloads/pictures. */
export const STUDY_PICTURES = ['meme', 'objects', 'road', 'pseudo-code', 'table', 'chart'] as const;

export type WorkloadName = 'TEXT + IMAGE' | 'TEXT ONLY';

export interface Study {
  readonly text_only: readonly string[];
  readonly image_and_text: readonly { readonly question: string }[];
  /** By method; the columns are those of `REPORTED_COLUMN`. */
  readonly reported_seconds: Readonly<Record<string, readonly (number | null)[]>>;
}

/** Of text alone the study has two columns; ours has flash attention, as the second of them. */
export const REPORTED_COLUMN: Readonly<Record<WorkloadName, number>> = {
  'TEXT + IMAGE': 0,
  'TEXT ONLY': 2,
};

export const readStudy = (): Study =>
  JSON.parse(readFileSync(new URL('workloads/study-questions.json', import.meta.url), 'utf8'));

export interface Workload {
  readonly name: WorkloadName;
  readonly count: number;
  readonly newTokens: number;
  /** The index-th request; reading and encoding its picture is part of it. No run profits from one with another `salt`. */
  request(index: number, salt: string): Promise<GenerationRequest>;
}

const render = (model: LoadedModel, content: string): string =>
  model.chatTemplate.render([{ role: 'user', content }], { addGenerationPrompt: true });

export function textWorkload(
  model: LoadedModel,
  newTokens: number,
): Workload & { readonly prompts: readonly (readonly number[])[] } {
  const prompts = readStudy().text_only.map((question) =>
    model.tokenizer.encode(render(model, question)),
  );
  return {
    name: 'TEXT ONLY',
    count: prompts.length,
    newTokens,
    prompts,
    request: async (index, salt) => benchRequest(salt, prompts[index]!, newTokens),
  };
}

/** Undefined for a model that reads text only. */
export function pictureWorkload(model: LoadedModel, newTokens: number): Workload | undefined {
  const { images, tokenizer } = model;
  if (images === undefined) return undefined;
  const marker = '<image>';
  const questions = readStudy().image_and_text.map(({ question }, i) => {
    const url = new URL(`workloads/pictures/${STUDY_PICTURES[i]}.png`, import.meta.url);
    return { rendered: render(model, question), file: readFileSync(url) };
  });
  return {
    name: 'TEXT + IMAGE',
    count: questions.length,
    newTokens,
    async request(index, salt) {
      const { rendered, file } = questions[index]!;
      // What follows the end of a PNG is not read, and makes it a picture whose embeddings are not kept yet.
      const salted = Buffer.concat([file, Buffer.from(salt)]).toString('base64');
      const part = { marker, type: 'image_url', detail: 'auto', path: 'picture' } as const;
      const [image] = await images.read([{ ...part, url: `data:image/png;base64,${salted}` }]);
      const ids = tokenizer.encode(rendered.replace(marker, () => image!.text));
      const positions = ids.flatMap((id, i) => (id === images.contextTokenId ? [i] : []));
      return {
        ...benchRequest(salt, ids, newTokens),
        images: [
          {
            digest: image!.digest,
            positions: Int32Array.from(positions),
            embeddings: await image!.embed(),
          },
        ],
      };
    },
  };
}
