$ doppel run --kernel kernel.elf --console virtio --serial stdio
doppel: --serial: stdio is the virtio console's; give the serial port none or file:F, or leave out --console virtio
[2]
