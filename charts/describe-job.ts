/** The Job that reads a model's configuration before GPUs are asked for. */
import { createHash } from 'node:crypto';
import { modelEnvironment, modelReference } from './engine-container.ts';
import { cacheVolume, GPU_TAINT, ownerReference } from './engine-pod.ts';
import type { KubeObject } from './kube.ts';
import { CACHE_PATH, CACHE_VOLUME, DESCRIBE_NAME, LABELS, OPERATOR_NAME } from './labels.ts';
import type { EngineProps } from './props.ts';
import { CONTAINER_SECURITY, VOLUME_SECURITY } from './security.ts';

/** A deployment of the longest name leaves room for four digits in the name of a Job. */
const maxAttempt = 9999;

/**
 * What a description depends on: another model, image or Secret is another Job, because a Job's pods cannot be changed. Every attempt is
 * a Job of its own, which has the number at the end of its name from the second on.
 */
export const describeJobName = (props: EngineProps, attempt = 1): string => {
  const { model } = props.spec;
  const parts = [modelReference(model), props.image, model.secretRef?.name, model.cache];
  const hash = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 8);
  return `${props.name}-describe-${hash}${attempt === 1 ? '' : `-${attempt}`}`;
};

/** Which attempt at the description `first` a Job's name says; undefined for a Job of another description. */
export function describeAttempt(first: string, jobName: string): number | undefined {
  if (jobName === first) return 1;
  const [, number] = jobName.startsWith(first)
    ? (/^-(\d+)$/.exec(jobName.slice(first.length)) ?? [])
    : [];
  return number === undefined ? undefined : Number(number);
}

/** After months of attempts the numbers, and the pauses with them, begin anew at the second. */
export const nextAttempt = (attempt: number): number => (attempt < maxAttempt ? attempt + 1 : 2);

/** Its pod answers with one line of JSON as termination message; needs no GPU and no rights. */
export function describeJob(props: EngineProps, attempt = 1): KubeObject {
  const { name, namespace, spec, image, imagePullPolicy } = props;
  const { model, accelerator } = spec;
  const labels = {
    [LABELS.name]: DESCRIBE_NAME,
    [LABELS.instance]: name,
    [LABELS.managedBy]: OPERATOR_NAME,
    [LABELS.describes]: name,
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name: describeJobName(props, attempt),
      namespace,
      labels,
      ownerReferences: [ownerReference(props)],
    },
    spec: {
      // No deadline: a pod that waits for a node, its image or a Secret goes on by itself, and one that runs gives up by itself.
      backoffLimit: 2,
      template: {
        metadata: { labels },
        spec: {
          restartPolicy: 'Never',
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          securityContext: VOLUME_SECURITY,
          // On a cluster of GPU nodes alone it runs there, without a GPU.
          tolerations: [GPU_TAINT, ...(accelerator.tolerations ?? [])],
          containers: [
            {
              name: 'describe',
              image,
              imagePullPolicy,
              command: ['node', 'engine/describe/main.ts'],
              args: [`--model=${modelReference(model)}`, '--output=/dev/termination-log'],
              env: modelEnvironment(model),
              resources: {
                requests: { cpu: '100m', memory: '256Mi' },
                limits: { memory: '1Gi' },
              },
              securityContext: CONTAINER_SECURITY,
              terminationMessagePolicy: 'FallbackToLogsOnError',
              volumeMounts: [
                { name: CACHE_VOLUME, mountPath: CACHE_PATH },
                { name: 'tmp', mountPath: '/tmp' },
              ],
            },
          ],
          volumes: [
            { name: CACHE_VOLUME, ...cacheVolume(model.cache) },
            { name: 'tmp', emptyDir: {} },
          ],
        },
      },
    },
  };
}
