/** The page: what is known, trying it out, teaching more. One column, made for a thumb. */

import { useEffect, useState } from 'preact/hooks';
import { Client } from './client.js';
import { keepOffline } from './offline.js';
import { Knowledge } from './parts/knowledge.js';
import { Progress } from './parts/progress.js';
import { Report } from './parts/report.js';
import { Teach } from './parts/teach.js';
import { Try } from './parts/try.js';
import { Unfinished } from './parts/unfinished.js';
import { Version } from './parts/version.js';
import type { FromFleet, Known, NewClass, TaskProgress, TaskReport } from './protocol.js';
import { handOver } from './shell.js';
import { reasonOf } from './wording.js';

const client = new Client();
// Not 'change', which comes between a finger's touch and its click, when what is below moves up.
const ACTIONS = ['click', 'input'] as const;

export function App() {
  const [known, setKnown] = useState<Known>();
  const [progress, setProgress] = useState<TaskProgress>();
  const [report, setReport] = useState<TaskReport>();
  const [problem, setProblem] = useState<string>();
  const [fromFleet, setFromFleet] = useState<FromFleet>();
  const [leftOut, setLeftOut] = useState<readonly string[]>([]);
  const [notKept, setNotKept] = useState<string>();
  // Counts tasks, so that the form is empty after each.
  const [taught, setTaught] = useState(0);
  // Calls that are under way: what would get in their way waits, and the page says that it works.
  const [working, setWorking] = useState(0);

  const guarded = async <T,>(work: () => Promise<T>): Promise<T | undefined> => {
    setProblem(undefined);
    setFromFleet(undefined);
    setLeftOut([]);
    setWorking((count) => count + 1);
    try {
      return await work();
    } catch (error) {
      setProblem(reasonOf(error));
      return undefined;
    } finally {
      setWorking((count) => count - 1);
    }
  };
  const open = () => guarded(async () => setKnown(await client.call('open')));

  const change = (work: () => Promise<Known>) =>
    guarded(async () => {
      setReport(undefined);
      setKnown(await work());
    });

  useEffect(() => {
    client.onProgress = setProgress;
    void open();
    if (!import.meta.env.DEV) void keepOffline().then(setNotKept);
  }, []);

  // What went wrong before is of no use once the person does something else. Before there is anything else, it stays.
  useEffect(() => {
    if (!known || problem === undefined) return;
    const next = ({ target }: Event) => {
      if (!(target as Element).closest?.('.problem')) setProblem(undefined);
    };
    for (const kind of ACTIONS) document.addEventListener(kind, next, true);
    return () => {
      for (const kind of ACTIONS) document.removeEventListener(kind, next, true);
    };
  }, [known, problem]);

  const learn = async (begin: () => Promise<TaskReport>) => {
    setReport(undefined);
    setProgress({ phase: 'read', done: 0, epoch: 0, epochs: 0, loss: Number.NaN });
    // Asked for when there is something to keep: a browser may say no, and the page says so.
    await navigator.storage?.persist?.().catch(() => false);
    const learned = await guarded(begin);
    setProgress(undefined);
    if (learned) {
      setReport(learned);
      setTaught((count) => count + 1);
    }
    const now = await client.call('open').catch(() => undefined);
    if (now) setKnown(now);
  };

  return (
    <>
      <header>
        <img src="icon.svg" alt="" width="40" height="40" />
        <div>
          <h1>Teach</h1>
          <p>It learns here. No image leaves.</p>
        </div>
      </header>
      <main>
        {problem && (
          <div class="problem" role="alert">
            <p>{problem}</p>
            {known ? (
              <button type="button" class="quiet" onClick={() => setProblem(undefined)}>
                Close
              </button>
            ) : (
              <button type="button" class="quiet" onClick={open}>
                Try again
              </button>
            )}
          </div>
        )}
        {!known && !problem && (
          <p class="loading" role="status">
            Opening the model …
          </p>
        )}
        {known && (
          <>
            <Try client={client} learned={JSON.stringify([known.base, known.tasks])} onProblem={setProblem} />
            {progress ? (
              <Progress progress={progress} onStop={() => void client.call('stop')} />
            ) : (
              <>
                {report && (
                  <Report
                    report={report}
                    onMerge={(into, other) => void change(() => client.call('merge', into, other))}
                    onForget={(name) => void change(() => client.call('forget', name))}
                    onClose={() => setReport(undefined)}
                  />
                )}
                {known.unfinished ? (
                  <Unfinished
                    task={known.unfinished}
                    onResume={(replace) => void learn(() => client.call('resume', replace))}
                    onDiscard={() => void guarded(async () => setKnown(await client.call('discard')))}
                  />
                ) : (
                  <Teach
                    key={taught}
                    known={known}
                    onTeach={(classes: NewClass[]) => void learn(() => client.call('learn', classes))}
                  />
                )}
              </>
            )}
            {known.version && !progress && (
              <Version
                told={known.version}
                busy={working > 0}
                onBack={() => void change(() => client.call('version', 'back'))}
                onForward={() => void change(() => client.call('version', 'forward'))}
                onClose={() => void change(() => client.call('version', 'keep'))}
              />
            )}
            <Knowledge
              known={known}
              notKept={notKept}
              busy={progress !== undefined || working > 0}
              working={!progress && working > 0}
              onExport={() =>
                void guarded(async () => handOver(await client.call('export'), 'taught-model.onnx'))
              }
              onUndo={() => void change(() => client.call('undo'))}
              onForget={(name) => void change(() => client.call('forget', name))}
              onRename={(old, name) => void change(() => client.call('rename', old, name))}
              onSave={() => void guarded(async () => handOver(await client.call('save'), 'learned.zip'))}
              onOpen={(file) => void change(() => client.call('openSaved', file))}
              fromFleet={fromFleet}
              leftOut={leftOut}
              onSaveForFleet={(name) =>
                void guarded(async () => {
                  const saved = await client.call('saveForFleet', name);
                  setLeftOut(saved.leftOut);
                  handOver(saved.file, `${name.replace(/[^\p{L}\p{N}]+/gu, '-')}.cskc`);
                })
              }
              onApplyFleet={(file) =>
                void guarded(async () => {
                  setReport(undefined);
                  const found = await client.call('applyFleet', file);
                  setKnown(await client.call('open'));
                  setFromFleet(found);
                })
              }
            />
          </>
        )}
      </main>
    </>
  );
}
