//! Our binary with real sockets, directories and plugins; a file per behaviour.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod access;
#[cfg(test)]
mod archive;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod databases;
#[cfg(test)]
mod eavesdrop;
#[cfg(test)]
mod exactness;
#[cfg(test)]
mod exporting;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod functions;
#[cfg(test)]
mod health;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod life;
#[cfg(test)]
mod many_children;
#[cfg(test)]
mod past_and_live;
#[cfg(test)]
mod promql;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod same_guid;
#[cfg(test)]
mod shipped;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod transport;
#[cfg(test)]
mod web;
#[cfg(test)]
mod wire;
