$ doppel run --kernel kernel.elf --console usb
doppel: --console: 'usb' is unknown; choose serial or virtio
[2]
