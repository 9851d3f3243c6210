/** Whose model cache an engine may not write to: the engine knows the path in its container, the pod the one on the node. */
import { CACHE_VOLUME } from '#charts/labels.ts';
import type { KubeObject } from '../kube/resource.ts';

/** The part of a pod that says where its cache is, and who writes to it. */
interface PodCache {
  readonly nodeName?: string;
  readonly securityContext?: { readonly runAsUser?: number; readonly runAsGroup?: number };
  readonly volumes?: readonly {
    readonly name: string;
    readonly hostPath?: { readonly path: string };
    readonly persistentVolumeClaim?: { readonly claimName: string };
  }[];
}

const engineWords = /\bCACHE_UNUSABLE: .*\b(?:EACCES|EPERM|EROFS)\b.*/;
const withoutQuotes = /^[\w@%+=:,./-]+$/;

/** A word of a shell command. */
const quoted = (text: string): string =>
  withoutQuotes.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** From the last words of an engine, whose codes are in docs/errors.md; undefined when they are about no cache that others own. */
export function findUnusableCache(pod: KubeObject, words: string): string | undefined {
  const [said] = engineWords.exec(words) ?? [];
  const { nodeName, securityContext = {}, volumes = [] } = (pod.spec ?? {}) as PodCache;
  const { hostPath, persistentVolumeClaim } =
    volumes.find(({ name }) => name === CACHE_VOLUME) ?? {};
  if (said === undefined) return undefined;
  const { runAsUser: user = '?', runAsGroup: group = user } = securityContext;
  const { name } = pod.metadata;
  if (hostPath !== undefined) {
    const { path } = hostPath;
    return `Pod ${name}: user ${user} may not write to ${path} of node ${nodeName}, its model cache. Run there, as root: chown -R ${user}:${group} ${quoted(path)} (a directory that the kubelet makes belongs to root); the pod goes on by itself then. The engine says: ${said}`;
  }
  if (persistentVolumeClaim === undefined) return undefined;
  const { claimName } = persistentVolumeClaim;
  return `Pod ${name}: user ${user} may not write to claim ${claimName}, its model cache. Give its directory to that user, as the storage behind it does not follow fsGroup, or name another claim in spec.model.cache.pvc; the pod goes on by itself then. The engine says: ${said}`;
}
