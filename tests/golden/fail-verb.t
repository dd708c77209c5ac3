$ doppel frobnicate
doppel: there is no verb 'frobnicate'; `doppel help` lists them
[2]
