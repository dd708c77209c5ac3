$ doppel run -n --engine warp
doppel: --engine: 'warp' is unknown; choose auto, bt, interp or lockstep
[2]
