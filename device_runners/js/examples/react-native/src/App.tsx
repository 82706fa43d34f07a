/** Two buttons and a text field: collect photos of new things, learn them, and ask what the camera sees. */

import type { Learner, Picture } from 'csk-sdk';
import { useCallback, useEffect, useState } from 'react';
import { Button, SafeAreaView, StyleSheet, Text, TextInput } from 'react-native';
import { takePhoto } from './camera';
import { type Collected, learnCollected, openLearner, sentence } from './learning';

export function App() {
  const [learner, setLearner] = useState<Learner>();
  const [collected, setCollected] = useState<Collected>(new Map());
  const [label, setLabel] = useState('');
  const [message, setMessage] = useState('Opening the bundle …');
  const [busy, setBusy] = useState(true);

  /** Do one thing at a time, and say what went wrong. */
  const during = useCallback(async (work: () => Promise<string>) => {
    setBusy(true);
    setMessage(await work().catch(sentence));
    setBusy(false);
  }, []);

  useEffect(() => {
    void during(async () => {
      const opened = await openLearner();
      setLearner(opened);
      return `Knows ${opened.classes.join(', ')}.`;
    });
  }, [during]);

  const collect = async (): Promise<string> => {
    const photo = await takePhoto();
    if (!photo) return 'No photo was taken.';
    const photos: readonly Picture[] = [...(collected.get(label) ?? []), photo];
    setCollected(new Map(collected).set(label, photos));
    return `${photos.length} photos of ${label}. Ten of each of two things are a good start.`;
  };

  const learn = async (opened: Learner): Promise<string> => {
    const { warnings } = await learnCollected(opened, collected, ({ phase, step, steps }) => {
      setMessage(phase === 'train' ? `Learning: step ${step} of ${steps}` : 'Learning …');
    });
    setCollected(new Map());
    return [`Learned. Now knows ${opened.classes.join(', ')}.`, ...warnings].join('\n\n');
  };

  const ask = async (opened: Learner): Promise<string> => {
    const photo = await takePhoto();
    if (!photo) return 'No photo was taken.';
    const { labels, probabilities } = await opened.predict([photo]);
    return `${labels[0]}, ${(100 * Math.max(...probabilities)).toFixed(0)} %`;
  };

  return (
    <SafeAreaView style={styles.screen}>
      <Text style={styles.message} accessibilityLiveRegion="polite">
        {message}
      </Text>
      <TextInput
        style={styles.label}
        value={label}
        onChangeText={setLabel}
        placeholder="Name of a new thing"
        accessibilityLabel="Name of a new thing"
      />
      <Button
        title="Take a photo of it"
        disabled={busy || label.trim() === ''}
        onPress={() => during(collect)}
      />
      <Button
        title="Learn the photos"
        disabled={busy || !learner || collected.size < 2}
        onPress={() => learner && during(() => learn(learner))}
      />
      <Button
        title="What is this?"
        disabled={busy || !learner}
        onPress={() => learner && during(() => ask(learner))}
      />
    </SafeAreaView>
  );
}

const styles = StyleSheet.create({
  screen: { flex: 1, justifyContent: 'center', gap: 16, padding: 24 },
  message: { fontSize: 18 },
  label: { borderWidth: 1, borderRadius: 8, padding: 12, fontSize: 16 },
});
