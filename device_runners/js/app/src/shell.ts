/** The app inside Capacitor's shell for Android and iOS, whose bridge is there before the page's own code runs. */

interface Bridge {
  isNativePlatform(): boolean;
  nativePromise(plugin: string, method: string, options: object): Promise<unknown>;
}

function bridge(): Bridge | undefined {
  const { Capacitor } = globalThis as { Capacitor?: Partial<Bridge> };
  return Capacitor?.isNativePlatform?.() && Capacitor.nativePromise ? (Capacitor as Bridge) : undefined;
}

/** Whether the page is part of an installed app: its files are there, whatever the network does. */
export function inShell(): boolean {
  return bridge() !== undefined;
}

/** Give the person a file: a download, or in a shell, which has none, what the system offers to do with it. */
export async function handOver(file: Blob, name: string): Promise<void> {
  const shell = bridge();
  if (!shell) return download(file, name);
  const written = await shell.nativePromise('Filesystem', 'writeFile', {
    path: name,
    data: await base64(file),
    // Where the system may tidy up: it is shared from there, and kept by whoever takes it.
    directory: 'CACHE',
  });
  try {
    await shell.nativePromise('Share', 'share', { files: [(written as { uri: string }).uri] });
  } catch (error) {
    if (!/cancel/i.test((error as Error)?.message ?? '')) throw error;
  }
}

function download(file: Blob, name: string): void {
  const url = URL.createObjectURL(file);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function base64(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve((reader.result as string).replace(/^[^,]*,/, ''));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
