/** The pictures of messages: read, put into the prompt's text, found among its ids, and turned into embeddings. */
import { NvlmError } from '#engine/protocol/errors.ts';
import { unsupportedError } from '#engine/protocol/fields.ts';
import type { TextMessage } from '#engine/protocol/messages.ts';
import type { PromptImage } from '#engine/scheduler/request.ts';
import type { ReadImage } from '#engine/vision/image-reader.ts';
import type { ServerContext } from './context.ts';

/** Pictures by the marker that stands for them. */
export type ReadImages = ReadonlyMap<string, ReadImage>;

export interface PlacedImage {
  readonly image: ReadImage;
  readonly positions: Int32Array;
}

const none: ReadImages = new Map();

/**
 * Decodes and cuts into tiles. Throws 'unsupported_parameter' when the model reads text only, 'invalid_request' for a picture that
 * cannot be read.
 */
export async function readImages(
  context: ServerContext,
  messages: readonly TextMessage[],
): Promise<ReadImages> {
  const parts = messages.flatMap(({ images = [] }) => images);
  const [first] = parts;
  if (first === undefined) return none;
  if (context.images === undefined) {
    throw unsupportedError(
      first.path.replace(/\.image_url$/, ''),
      `the served model reads text only, not ${first.type}`,
    );
  }
  const images = await context.images.read(parts);
  return new Map(parts.map(({ marker }, i) => [marker, images[i]!]));
}

/** The rendered text with what stands for each picture in the place of its marker. */
export function withImages(rendered: string, images: ReadImages): string {
  let text = rendered;
  for (const [marker, { text: inPrompt }] of images) text = text.replace(marker, () => inPrompt);
  return text;
}

/** Finds the context tokens of each picture. Throws 'invalid_request' when there are others, or not all of them. */
export function placeImages(
  context: ServerContext,
  rendered: string,
  ids: readonly number[],
  images: ReadImages,
  path: string,
): readonly PlacedImage[] {
  if (images.size === 0 || context.images === undefined) return [];
  const { contextToken, contextTokenId } = context.images;
  // A template may leave messages out.
  const inOrder = [...images]
    .map(([marker, image]) => ({ at: rendered.indexOf(marker), image }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at);
  const positions = Int32Array.from(ids.flatMap((id, i) => (id === contextTokenId ? [i] : [])));
  const expected = inOrder.reduce((sum, { image }) => sum + image.tokenCount, 0);
  if (positions.length !== expected) {
    throw new NvlmError(
      'invalid_request',
      `${path}: expected ${expected} tokens ${contextToken} for ${inOrder.length} pictures, got ${positions.length}; ` +
        `text beside pictures must not hold that token, and truncate_prompt_tokens must not cut pictures`,
      { param: path },
    );
  }
  let next = 0;
  return inOrder.map(({ image }) => {
    const own = positions.subarray(next, next + image.tokenCount);
    next += image.tokenCount;
    return { image, positions: own };
  });
}

/** Runs the encoder over the pictures that it has not seen of late. */
export function embedImages(placed: readonly PlacedImage[]): Promise<readonly PromptImage[]> {
  return Promise.all(
    placed.map(async ({ image, positions }) => ({
      digest: image.digest,
      positions,
      embeddings: await image.embed(),
    })),
  );
}
