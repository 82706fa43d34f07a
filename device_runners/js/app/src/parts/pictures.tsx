/** Images as files: choosing them, taking them, and showing them small. */

import { useEffect, useMemo, useRef } from 'preact/hooks';

interface PickerProps {
  readonly label: string;
  /** What is said to a screen reader, where the label alone would be one of many. */
  readonly describes?: string;
  readonly multiple?: boolean;
  /** Straight from the phone's camera. */
  readonly camera?: boolean;
  readonly main?: boolean;
  readonly onPick: (files: File[]) => void;
}

/** A button that asks for images; the phone offers its gallery, or with `camera` its camera. */
export function Picker({ label, describes, multiple, camera, main, onPick }: PickerProps) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button
        type="button"
        class={main ? 'main' : 'plain'}
        {...(describes ? { 'aria-label': describes } : {})}
        onClick={() => input.current?.click()}
      >
        {label}
      </button>
      <input
        ref={input}
        type="file"
        accept="image/*"
        hidden
        multiple={multiple ?? false}
        {...(camera ? { capture: 'environment' } : {})}
        aria-label={describes ?? label}
        onChange={({ currentTarget }) => {
          const files = [...(currentTarget.files ?? [])];
          // The same file again is a change too.
          currentTarget.value = '';
          if (files.length) onPick(files);
        }}
      />
    </>
  );
}

/** An image of a file; its address is given back when it is no longer shown. */
export function Thumbnail({ file, alt }: { file: Blob; alt: string }) {
  const url = useMemo(() => URL.createObjectURL(file), [file]);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);
  return <img class="thumbnail" src={url} alt={alt} loading="lazy" decoding="async" />;
}
