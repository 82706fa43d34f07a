# In ios/Podfile, inside the target: eval File.read('../native/onnxruntime.rb')
# onnxruntime-react-native's podspec names no version of its core: this is the one that it was made with.
pod 'onnxruntime-c', '1.24.3'
