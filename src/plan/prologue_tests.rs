//! Operands that are made of copies: what plans for GPUs have, and what no plan may have.

use super::verify;
use crate::kernel::access::Bound;
use crate::kernel::body::{Body, BufferId, Contraction, Expr, ExprId, Exprs, Operand};
use crate::kernel::target::{Architecture, Fusion, Precision, Strategy, Target};
use crate::plan::Plan;
use crate::testing::conformance::{Agreement, Fixture, plan_of};

/// The deviations of a product from its mean, multiplied by a matrix.
fn plan(target: Target) -> Plan {
    let mut f = Fixture::new();
    let [a, b, w] = [("a", [32, 16]), ("b", [16, 64]), ("w", [64, 16])].map(|(name, shape)| f.input(name, &shape));
    let mut build = f.builder();
    let x = build.matmul(a, b);
    let mean = build.mean(x, &[0]);
    let mean = build.broadcast(mean, &[32, 64]);
    let deviation = build.sub(x, mean);
    let product = build.matmul(deviation, w);
    f.output("product", product);
    let graph = f.case("deviations", Agreement::Exact).graphs.remove(0);
    Plan::clone(&plan_of(&graph, Strategy::new(Fusion::On, target, Precision::Tf32)))
}

const GPU: Target = Target::Cuda(Architecture(80));

/// The operand that is made of copies, and its contraction.
fn made(plan: &mut Plan) -> Option<(&mut Exprs<BufferId>, &mut Option<ExprId>)> {
    let bodies = plan.entries[0].schedule.kernels.iter_mut().map(|kernel| &mut kernel.body);
    let contractions = bodies.filter_map(|body| match body {
        Body::Contraction(c) => Some(c),
        Body::Nests(_) | Body::Transform(_) => None,
    });
    contractions.flat_map(|c: &mut Contraction<BufferId>| &mut c.operands).find_map(|operand| match operand {
        Operand::Computed { exprs, copied } => Some((exprs, copied)),
        Operand::Buffer { .. } => None,
    })
}

#[test]
fn a_product_makes_its_operand_of_copies_where_tensor_cores_compute_it() {
    assert!(made(&mut plan(GPU)).is_some_and(|(_, copied)| copied.is_some()));
    assert!(made(&mut plan(Target::Cuda(Architecture(75)))).is_none());
    assert!(made(&mut plan(Target::Cpu)).is_some_and(|(_, copied)| copied.is_none()));
}

#[test]
fn operands_of_what_cannot_be_copied_are_refused() {
    type Change = fn(&mut Exprs<BufferId>, &mut Option<ExprId>);
    let changes: [(&str, Change); 5] = [
        ("cannot be copied", |exprs, copied| *copied = exprs.last()),
        ("cannot be copied", |_, copied| *copied = Some(ExprId::new(1000))),
        ("cannot be copied", |exprs, copied| {
            let is_other = |id: &ExprId| Some(*id) != *copied && !matches!(exprs[*id], Expr::Load { .. });
            *copied = exprs.ids().find(is_other);
        }),
        ("cannot be copied", |exprs, copied| {
            let mut bounded = Exprs::default();
            for (id, mut expr) in exprs.ids().zip(exprs.clone().iter().cloned()) {
                if let Expr::Load { access, .. } = &mut expr
                    && Some(id) == *copied
                {
                    access.bounds.push(Bound { offset: 0, strides: vec![0, 1, 0], below: 31 });
                }
                bounded.push(expr);
            }
            *exprs = bounded;
        }),
        ("workspace", |_, copied| *copied = None),
    ];
    assert_eq!(verify(&plan(GPU)), Ok(()));
    for (problem, change) in changes {
        let mut plan = plan(GPU);
        let (exprs, copied) = made(&mut plan).unwrap();
        change(exprs, copied);
        let error = verify(&plan).expect_err("the plan is refused").to_string();
        assert!(error.contains(problem), "{error}");
    }
}
