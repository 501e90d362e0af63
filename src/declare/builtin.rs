//! The programs inside the binary.

/// Their names.
pub const NAMES: [&str; 10] =
    ["dcgan", "dcgan-paper", "dcgan64", "mlp-gan", "lsgan", "wgan-gp", "hinge", "cgan", "vae", "lenet"];

/// The text of a built-in program.
pub fn text(name: &str) -> Option<&'static str> {
    Some(match name {
        "dcgan" => include_str!("../../graphs/dcgan.ron"),
        "dcgan-paper" => include_str!("../../graphs/dcgan-paper.ron"),
        "dcgan64" => include_str!("../../graphs/dcgan64.ron"),
        "mlp-gan" => include_str!("../../graphs/mlp-gan.ron"),
        "lsgan" => include_str!("../../graphs/lsgan.ron"),
        "wgan-gp" => include_str!("../../graphs/wgan-gp.ron"),
        "hinge" => include_str!("../../graphs/hinge.ron"),
        "cgan" => include_str!("../../graphs/cgan.ron"),
        "vae" => include_str!("../../graphs/vae.ron"),
        "lenet" => include_str!("../../graphs/lenet.ron"),
        _ => return None,
    })
}

/// What a built-in program is, in one line.
pub fn about(name: &str) -> Option<&'static str> {
    Some(match name {
        "dcgan" => "a convolutional GAN with dropout, the default (after Radford et al., 2016)",
        "dcgan-paper" => "the DCGAN with its paper's weights and rates (Radford et al., 2016)",
        "dcgan64" => "the DCGAN of the paper for 64x64 images in colour (Radford et al., 2016)",
        "mlp-gan" => "a small GAN of dense layers (Goodfellow et al., 2014)",
        "lsgan" => "a GAN with squared losses (Mao et al., 2017)",
        "wgan-gp" => {
            "a Wasserstein GAN with gradient penalty, five critic steps for each of the generator (Gulrajani et al., 2017)"
        }
        "hinge" => "a GAN with the hinge loss and spectral normalisation (Miyato et al., 2018)",
        "cgan" => "a GAN that makes images of a chosen class (Mirza & Osindero, 2014)",
        "vae" => "a variational autoencoder (Kingma & Welling, 2014)",
        "lenet" => "a classifier (after LeCun et al., 1998)",
        _ => return None,
    })
}
