//! Network interfaces, addresses and routes by rtnetlink(7): what the host's side takes from a
//! container's namespace, and what the guest's side makes of it.
