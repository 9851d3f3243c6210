/**
 * Which Secret a pod waits for. The operator may not read Secrets, and a right to read their metadata alone does not exist: what they
 * miss is told by the kubelet, or by the engine that found nothing.
 */
import { API_KEYS_VOLUME } from '#charts/labels.ts';
import type { KubeObject } from '../kube/resource.ts';

interface Variable {
  readonly name: string;
  readonly valueFrom?: { readonly secretKeyRef?: SecretKey };
}
interface SecretKey {
  readonly name: string;
  readonly key: string;
}
/** The part of a pod that names Secrets. */
interface PodSecrets {
  readonly containers?: readonly { readonly env?: readonly Variable[] }[];
  readonly volumes?: readonly {
    readonly name: string;
    readonly secret?: {
      readonly secretName: string;
      readonly items?: readonly { readonly key: string }[];
    };
  }[];
}

/** The kubelet's words for a variable of the environment that a Secret should fill. */
const kubeletWords =
  /secret "(?<missing>[^"]+)" not found|find key (?<key>\S+) in Secret (?:\S+\/)?(?<keyless>\S+)/i;

const variablesOf = ({ spec }: KubeObject): readonly Variable[] =>
  ((spec ?? {}) as PodSecrets).containers?.flatMap(({ env = [] }) => env) ?? [];

const tell = (
  { metadata: { name, namespace } }: KubeObject,
  what: string,
  secret: SecretKey,
  field: string,
): string =>
  `Pod ${name}: ${what}. Create Secret ${secret.name} in namespace ${namespace} with a value under the key ${secret.key}, or correct ${field}; the pod goes on by itself then.`;

/** From what a kubelet says of a container that it cannot create; undefined when it is about no Secret. */
export function findMissingVariable(pod: KubeObject, words: string): string | undefined {
  const { missing, key, keyless } = kubeletWords.exec(words)?.groups ?? {};
  const name = missing ?? keyless;
  if (name === undefined) return undefined;
  const references = variablesOf(pod).map(({ valueFrom }) => valueFrom?.secretKeyRef);
  const wanted = key ?? references.find((reference) => reference?.name === name)?.key ?? '?';
  const field = 'spec.model.secretRef or spec.template';
  return tell(pod, words, { name, key: wanted }, field);
}

/** From the last words of an engine, whose codes are in docs/errors.md; undefined when they are about no Secret. */
export function findEmptySecret(pod: KubeObject, words: string): string | undefined {
  const [code] = /\b(?:API_KEYS_MISSING|DOWNLOAD_TOKEN_EMPTY)\b/.exec(words) ?? [];
  if (code === 'API_KEYS_MISSING') {
    const { volumes = [] } = (pod.spec ?? {}) as PodSecrets;
    const { secret } = volumes.find(({ name }) => name === API_KEYS_VOLUME) ?? {};
    if (secret === undefined) return undefined;
    const wanted = { name: secret.secretName, key: secret.items?.[0]?.key ?? '?' };
    const what = `Secret ${wanted.name} does not exist, or has no API key under ${wanted.key}`;
    return tell(pod, what, wanted, 'spec.auth.apiKeysSecretRef');
  }
  if (code === 'DOWNLOAD_TOKEN_EMPTY') {
    const token = variablesOf(pod).find(({ name }) => name === 'NVLM_HF_TOKEN');
    const wanted = token?.valueFrom?.secretKeyRef;
    if (wanted === undefined) return undefined;
    return tell(pod, `Secret ${wanted.name} is empty`, wanted, 'spec.model.secretRef');
  }
  return undefined;
}
