//! Operands that prologues compute where they are staged: what plans for GPUs have, and what no plan may have.

use super::verify;
use crate::kernel::access::{Access, Bound};
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

/// The prologue, and what is staged for it.
fn prologue(plan: &mut Plan) -> Option<(&mut Exprs<BufferId>, &mut Option<ExprId>)> {
    let bodies = plan.entries[0].schedule.kernels.iter_mut().map(|kernel| &mut kernel.body);
    let contractions = bodies.filter_map(|body| match body {
        Body::Contraction(c) => Some(c),
        Body::Nests(_) | Body::Transform(_) => None,
    });
    contractions.flat_map(|c: &mut Contraction<BufferId>| &mut c.operands).find_map(|operand| match operand {
        Operand::Computed { exprs, staged } => Some((exprs, staged)),
        Operand::Buffer { .. } => None,
    })
}

#[test]
fn a_product_normalises_what_it_stages_where_tensor_cores_compute_it() {
    assert!(prologue(&mut plan(GPU)).is_some_and(|(_, staged)| staged.is_some()));
    assert!(prologue(&mut plan(Target::Cuda(Architecture(75)))).is_none());
    assert!(prologue(&mut plan(Target::Cpu)).is_some_and(|(_, staged)| staged.is_none()));
}

#[test]
fn prologues_of_what_cannot_be_staged_are_refused() {
    type Change = fn(&mut Exprs<BufferId>, &mut Option<ExprId>);
    let changes: [(&str, Change); 6] = [
        ("cannot be staged", |exprs, staged| *staged = exprs.last()),
        ("cannot be staged", |_, staged| *staged = Some(ExprId::new(1000))),
        ("cannot be staged", |exprs, staged| {
            let is_other = |id: &ExprId| Some(*id) != *staged && !matches!(exprs[*id], Expr::Load { .. });
            *staged = exprs.ids().find(is_other);
        }),
        ("cannot be staged", |exprs, staged| {
            let mut bounded = Exprs::default();
            for (id, mut expr) in exprs.ids().zip(exprs.clone().iter().cloned()) {
                if let Expr::Load { access, .. } = &mut expr
                    && Some(id) == *staged
                {
                    access.bounds.push(Bound { offset: 0, strides: vec![0, 1, 0], below: 31 });
                }
                bounded.push(expr);
            }
            *exprs = bounded;
        }),
        // Nothing but the copy reads it.
        ("an access reaches", |exprs, staged| {
            let Some(Expr::Load { buffer, access, lane }) = staged.and_then(|staged| exprs.get(staged)).cloned() else {
                panic!("a load is staged");
            };
            let access = Access { offset: 1 << 20, ..access };
            let mut others = Exprs::default();
            *staged = Some(others.push(Expr::Load { buffer, access, lane }));
            others.append(exprs.clone(), |expr| expr);
            *exprs = others;
        }),
        ("workspace", |_, staged| *staged = None),
    ];
    assert_eq!(verify(&plan(GPU)), Ok(()));
    for (problem, change) in changes {
        let mut plan = plan(GPU);
        let (exprs, staged) = prologue(&mut plan).unwrap();
        change(exprs, staged);
        let error = verify(&plan).expect_err("the plan is refused").to_string();
        assert!(error.contains(problem), "{error}");
    }
}
