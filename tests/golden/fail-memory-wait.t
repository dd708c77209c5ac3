$ doppel memory x 1G --wait soon
doppel: --wait: 'soon' is no number of seconds; give one up to 86400
[2]
