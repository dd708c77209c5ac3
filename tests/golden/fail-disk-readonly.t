$ doppel run -n --disk x,readonly=maybe
doppel: --disk: 'x,readonly=maybe': readonly is on or off; see `doppel run --help`
[2]
