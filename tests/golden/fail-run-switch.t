$ doppel run -n --no-reboot=perhaps
doppel: --no-reboot: 'perhaps' is neither yes nor no; a switch takes no other value
[2]
