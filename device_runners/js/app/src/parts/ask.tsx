/** A question before something that cannot be undone. */

import type { ComponentChildren } from 'preact';

export function Ask({
  label,
  yes,
  no,
  onYes,
  onNo,
  children,
}: {
  label: string;
  yes: string;
  no: string;
  onYes: () => void;
  onNo: () => void;
  children: ComponentChildren;
}) {
  return (
    <div class="ask" role="alertdialog" aria-label={label}>
      <p>{children}</p>
      <div class="row">
        <button type="button" class="danger" onClick={onYes}>
          {yes}
        </button>
        <button type="button" class="plain" onClick={onNo}>
          {no}
        </button>
      </div>
    </div>
  );
}
