import assert from 'node:assert/strict';
import { CheckpointError, type CheckpointErrorCode } from '#engine/weights/errors.ts';

/** `work` must be refused with `code`, and the message must name everything in `mentions`. */
export async function refusesWith(
  code: CheckpointErrorCode,
  mentions: readonly string[],
  work: () => unknown,
): Promise<void> {
  await assert.rejects(
    async () => {
      await work();
    },
    (error: unknown) => {
      assert.ok(error instanceof CheckpointError, `not a CheckpointError: ${error}`);
      assert.equal(error.code, code, error.message);
      for (const word of mentions) {
        assert.ok(error.message.includes(word), `'${word}' is not in: ${error.message}`);
      }
      return true;
    },
  );
}
