/** The options of the operator: one table that reads flags and environment and prints --help. */
import {
  type OptionTable,
  type OptionValues,
  optional,
  optionLines,
  readOptions,
  required,
} from '#options/table.ts';
import { choice, duration, integer, onOff, text } from '#options/types.ts';

export { OptionError } from '#options/table.ts';

export const OPERATOR_OPTIONS = {
  kubeconfig: optional(
    text,
    'Kubeconfig file; default: KUBECONFIG, ~/.kube/config, or the service account of the pod',
  ),
  'engine-image': required(text, 'nvlm-engine:dev', 'Image of the engine pods'),
  'image-pull-policy': required(
    choice('Always', 'IfNotPresent', 'Never'),
    'IfNotPresent',
    'When nodes pull the engine image',
  ),
  namespace: required(text, 'nvlm-system', 'Namespace of the operator: its Lease and certificates'),
  'watch-namespace': optional(text, 'Only NVLMDeployments of this namespace; default: all'),
  host: required(text, '0.0.0.0', 'Address to listen on'),
  port: required(
    integer(0, 65535),
    '8080',
    'Port of health, metrics and wake signals; 0 picks a free one',
  ),
  'leader-election': required(onOff, 'on', 'One writer among several operators'),
  'lease-duration': required(duration, '15s', 'How long a leader that fell silent is waited for'),
  workers: required(
    integer(1, 64),
    '8',
    'NVLMDeployments that are worked on at once, at most: fewer while the API server is slow',
  ),
  'scrape-period': required(duration, '2s', 'How often engines are asked for their queue'),
  'scrape-timeout': required(duration, '1s', 'How long one engine may take to answer'),
  'describe-timeout': required(
    duration,
    '60s',
    'How long a new deployment waits for the Job that reads its model’s configuration',
  ),
  'metrics-api': required(
    choice('custom', 'external', 'none'),
    'custom',
    'Where the HPA reads queue depth: custom.metrics.k8s.io, external.metrics.k8s.io, or nowhere: then the operator scales by itself',
  ),
  'metrics-port': required(
    integer(0, 65535),
    '6443',
    'Port of the metrics API; 0 picks a free one',
  ),
  'metrics-service': required(
    text,
    'nvlm-operator-metrics',
    'Service in the namespace of the operator that leads to the metrics port',
  ),
  'metrics-service-port': required(integer(1, 65535), '443', 'Port of that Service'),
  'metrics-certificate-lifetime': required(
    duration,
    '2160h',
    'How long the serving certificate of the metrics API is valid, at least 30s; it is renewed with a third of that left',
  ),
  'log-level': required(
    choice('fatal', 'error', 'warn', 'info', 'debug', 'silent'),
    'info',
    'Least severe log line that is written',
  ),
} satisfies OptionTable;

export type OperatorOptions = OptionValues<typeof OPERATOR_OPTIONS>;

type Environment = Readonly<Record<string, string | undefined>>;

/** Frozen options, or 'help'. Throws OptionError. */
export function readOperatorOptions(
  argv: readonly string[],
  environment: Environment,
): OperatorOptions | 'help' {
  // A Service named nvlm-... puts variables of its own into every pod of its namespace.
  const isForeign = (variable: string): boolean => /_(SERVICE|PORT)(_|$)/.test(variable);
  const result = readOptions(OPERATOR_OPTIONS, argv, environment, isForeign);
  return result === 'help' ? result : result.values;
}

export const operatorHelp = (): string =>
  `Usage: npm run operator -- [options]\n\nReconciles NVLMDeployments, serves their queue depth to the HPA, and scales between zero and one.\n\n${optionLines(OPERATOR_OPTIONS)}\n`;
